"""The texts of hooks. All of them call one script, which starts the service or, without systemd, repairs.

A hook is part of somebody else's transaction: whatever happens to it, it ends, in bounded time and with status 0. That
counts where chrootsync is gone, or its Python broken by an upgrade of the distribution, too.
"""

from __future__ import annotations

import shlex

HOOK = "/etc/chrootsync/hook"

SCRIPT = r"""#!/bin/sh
# Usage: hook NAME. Has the chroots brought in sync because NAME may have changed what they hold copies of.
# Under systemd it starts chrootsync.service, and does not wait for it: a package manager that waits for a hook that
# waits for the package manager is a deadlock. Else it repairs at once. It ends 0 whatever happens: a hook that fails
# would fail an upgrade. What it has to say goes to the system log, as "chrootsync".

name=${1:-hook}
limit=60  # seconds that a repair may take
interpreter=@INTERPRETER@
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C.UTF-8
export PATH LC_ALL
unset LD_PRELOAD LD_LIBRARY_PATH
umask 077
cd / || exit 0
exec </dev/null

# Where nothing takes what is said to the system log, nobody is told: the output of a package manager is not ours.
tell() {
    if command -v logger >/dev/null 2>&1; then
        # It listens as long as the repair may take; what a repair has left behind may not keep it for ever.
        "$@" 2>&1 | timeout -k 1 "$((limit + 10))" logger -t chrootsync >/dev/null 2>&1
    else
        "$@" >/dev/null 2>&1
    fi
}

# What changes while the service runs makes it run once more: the file says so, and who called.
start() {
    [ -d /run/systemd/system ] || return 1
    mkdir -p /run/chrootsync || return 1
    file=/run/chrootsync/.requested.$$
    echo "TRIGGER=$name" >"$file" && mv -f "$file" /run/chrootsync/requested || return 1
    timeout -k 1 10 systemctl --no-block --quiet start chrootsync.service && return 0
    rm -f /run/chrootsync/requested
    return 1
}

# dpkg calls its hook several times within one run of apt, in the middle of things; apt calls its own once, at the end.
last() {
    [ "$name" != dpkg ] || [ -z "$DPKG_FRONTEND_LOCKED" ] || [ ! -e /etc/apt/apt.conf.d/99chrootsync ]
}

# A repair that is under way already may not have seen the change: it is waited for, and there is one more.
repair() {
    # env itself would take a path with = in it for a variable.
    timeout -k 5 "$limit" env -i PATH="$PATH" LC_ALL="$LC_ALL" sh -c 'exec "$@"' sh \
        "$interpreter" -I -m chrootsync check --fix --trigger "$name" --wait 30
    code=$?
    case $code in
        0 | 1 | 2 | 3 | 4 | 5 | 70) ;;  # it has said what there is to say
        124 | 137) echo "called by $name: did not end within $limit seconds, and was ended" ;;
        *) echo "called by $name: cannot be run (status $code); install it again, or remove /etc/chrootsync/hook" ;;
    esac
}

if ! start 2>/dev/null && last; then
    tell repair
fi
exit 0
"""

APT = """// apt calls this once per run, after all of dpkg's work.
DPkg::Post-Invoke {"if [ -x @HOOK@ ]; then @HOOK@ apt || true; fi";};
"""

DPKG = """# For dpkg -i; in a run of apt it is called several times.
post-invoke=if [ -x @HOOK@ ]; then @HOOK@ dpkg || true; fi
"""

# With a filter by name, the command of every package is the same and runs once.
DNF4 = """# For the plugin post-transaction-actions of dnf 4 (python3-dnf-plugin-post-transaction-actions).
*:any:if [ -x @HOOK@ ]; then @HOOK@ dnf; fi
"""

# No filter: once per transaction. The command is not run by a shell; that it fails is ignored.
DNF5 = """# For the plugin actions of dnf 5 (libdnf5-plugin-actions).
post_transaction::::@HOOK@ dnf
"""

RPM = """# The hook of rpm is a package with file triggers; "chrootsync install rpm" builds and installs it.
Name: chrootsync-hook
Version: 1
Release: 1
Summary: Brings chroots in sync after each transaction
License: MIT
BuildArch: noarch

%description
Calls @HOOK@ once at the end of each transaction that touches what chroots hold copies of.

%files

%transfiletriggerin -p /bin/sh -- /usr/lib64 /lib64 /usr/lib /lib /etc /usr/share/zoneinfo
if [ -x @HOOK@ ]; then @HOOK@ rpm || true; fi

%transfiletriggerpostun -p /bin/sh -- /usr/lib64 /lib64 /usr/lib /lib /etc /usr/share/zoneinfo
if [ -x @HOOK@ ]; then @HOOK@ rpm || true; fi
"""

# Frames end with a zero byte, which read drops; so a command may follow what is left of the frame before it. Zypper
# waits for each answer, and for the end of the plugin: the script ends when its input does.
ZYPPER = r"""#!/bin/sh
# A commit plugin of libzypp: answers each message, and calls the hook once packages have been installed.
hook() {
    [ -x @HOOK@ ] && timeout -k 5 90 @HOOK@ zypper </dev/null >/dev/null 2>&1
}
while IFS= read -r line; do
    case $line in
        *_DISCONNECT) printf 'ACK\n\n\000'; break ;;
        *COMMITEND) hook; printf 'ACK\n\n\000' ;;
        *PLUGINBEGIN | *COMMITBEGIN | *PLUGINEND) printf 'ACK\n\n\000' ;;
    esac
done
exit 0
"""

PACMAN = """# pacman calls this once per transaction.
[Trigger]
Operation = Install
Operation = Upgrade
Operation = Remove
Type = Package
Target = *

[Action]
Description = Bringing chroots in sync...
When = PostTransaction
Exec = /bin/sh -c "[ ! -x @HOOK@ ] || @HOOK@ pacman"
"""

APK = """#!/bin/sh
# apk calls this before and after each commit.
if [ "$1" = post-commit ] && [ -x @HOOK@ ]; then @HOOK@ apk || true; fi
exit 0
"""

RESOLVCONF = """#!/bin/sh
# resolvconf calls this after it has written resolv.conf.
if [ -x @HOOK@ ]; then @HOOK@ resolvconf || true; fi
exit 0
"""

NETWORKMANAGER = """#!/bin/sh
# NetworkManager calls this with an interface and what happened to it.
case $2 in
    up | down | reapply | connectivity-change | dhcp4-change | dhcp6-change | vpn-up | vpn-down | dns-change)
        if [ -x @HOOK@ ]; then @HOOK@ networkmanager || true; fi ;;
esac
exit 0
"""

DHCLIENT = """# dhclient-script reads this into itself after it has written resolv.conf: nothing here may end it.
case ${reason-} in
    BOUND | RENEW | REBIND | REBOOT | TIMEOUT | EXPIRE | FAIL | RELEASE | STOP | BOUND6 | RENEW6 | REBIND6 | EXPIRE6)
        if [ -x @HOOK@ ]; then @HOOK@ dhclient || true; fi ;;
esac
"""

IFUPDOWN = """#!/bin/sh
# ifupdown calls this after it has brought an interface up.
if [ "$IFACE" != lo ] && [ -x @HOOK@ ]; then @HOOK@ ifupdown || true; fi
exit 0
"""

CA_CERTIFICATES = """#!/bin/sh
# update-ca-certificates calls this after its work, with what it changed on standard input.
cat >/dev/null
if [ -x @HOOK@ ]; then @HOOK@ ca-certificates || true; fi
exit 0
"""


def filled(text: str, interpreter: str) -> str:
    """A text with the paths of this host in it."""
    return text.replace("@INTERPRETER@", shlex.quote(interpreter)).replace("@HOOK@", HOOK)
