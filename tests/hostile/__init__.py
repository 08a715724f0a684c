"""What an attacker who owns a part of a chroot may prepare, and what of it reaches the host: nothing."""
