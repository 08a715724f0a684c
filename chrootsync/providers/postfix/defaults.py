"""The values that parameters have where main.cf does not set them: asked from postconf(1), or out of a table.

The table is for images, where no program is run, and for hosts without postconf: Postfix 3.7 as compiled upstream, and
what distributions change. It holds what a rule may look at, and what those values refer to. Where the programs lie and
which version they are is seen from the files themselves, where they are there: derivatives move them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from chrootsync import distribution
from chrootsync.model import FileType, Host, PathError, Reader

_POSTCONF: Final = ("/usr/sbin/postconf", "/usr/bin/postconf", "/usr/local/sbin/postconf", "/usr/local/bin/postconf")
_CACHE: Final = "postfix-defaults"
_TIMEOUT: Final = 10.0

_PROXIED: Final = """
    local_recipient_maps mydestination virtual_alias_maps virtual_alias_domains virtual_mailbox_maps
    virtual_mailbox_domains relay_recipient_maps relay_domains canonical_maps sender_canonical_maps
    recipient_canonical_maps relocated_maps transport_maps mynetworks smtpd_sender_login_maps sender_bcc_maps
    recipient_bcc_maps smtp_generic_maps lmtp_generic_maps alias_maps smtpd_client_restrictions
    smtpd_helo_restrictions smtpd_sender_restrictions smtpd_relay_restrictions smtpd_recipient_restrictions
    address_verify_sender_dependent_default_transport_maps address_verify_sender_dependent_relayhost_maps
    address_verify_transport_maps fallback_transport_maps lmtp_discard_lhlo_keyword_address_maps
    lmtp_pix_workaround_maps lmtp_sasl_password_maps lmtp_tls_policy_maps mailbox_command_maps
    mailbox_transport_maps postscreen_discard_ehlo_keyword_address_maps rbl_reply_maps
    sender_dependent_default_transport_maps sender_dependent_relayhost_maps smtp_discard_ehlo_keyword_address_maps
    smtp_pix_workaround_maps smtp_sasl_password_maps smtp_tls_policy_maps smtpd_discard_ehlo_keyword_address_maps
    smtpd_milter_maps virtual_gid_maps virtual_uid_maps local_login_sender_maps postscreen_reject_footer_maps
    smtpd_reject_footer_maps tls_server_sni_maps tlsproxy_client_policy_maps default_delivery_status_filter
    lmtp_delivery_status_filter lmtp_dns_reply_filter lmtp_reply_filter local_delivery_status_filter
    pipe_delivery_status_filter postscreen_command_filter smtp_delivery_status_filter smtp_dns_reply_filter
    smtp_reply_filter smtpd_command_filter smtpd_dns_reply_filter virtual_delivery_status_filter body_checks
    header_checks lmtp_body_checks lmtp_header_checks lmtp_mime_header_checks lmtp_nested_header_checks
    milter_header_checks mime_header_checks nested_header_checks smtp_body_checks smtp_header_checks
    smtp_mime_header_checks smtp_nested_header_checks
"""

_BASE: Final[Mapping[str, str]] = {
    "address_verify_map": "btree:$data_directory/verify_cache",
    "address_verify_sender_dependent_default_transport_maps": "$sender_dependent_default_transport_maps",
    "address_verify_sender_dependent_relayhost_maps": "$sender_dependent_relayhost_maps",
    "address_verify_transport_maps": "$transport_maps",
    "alias_database": "hash:/etc/aliases",
    "alias_maps": "hash:/etc/aliases",
    "command_directory": "/usr/sbin",
    "compatibility_level": "0",
    "config_directory": "/etc/postfix",
    "daemon_directory": "/usr/libexec/postfix",
    "data_directory": "/var/lib/postfix",
    "default_database_type": "hash",
    "disable_dns_lookups": "no",
    "fast_flush_domains": "$relay_domains",
    "inet_interfaces": "all",
    "inet_protocols": "all",
    "lmtp_host_lookup": "dns",
    "lmtp_sasl_type": "cyrus",
    "local_login_sender_maps": "static:*",
    "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
    "local_transport": "local:$myhostname",
    "mail_name": "Postfix",
    "mail_owner": "postfix",
    "mail_spool_directory": "/var/mail",
    "maillog_file_prefixes": "/var, /dev/stdout",
    "meta_directory": "/etc/postfix",
    "milter_connect_timeout": "30s",
    "milter_default_action": "tempfail",
    "mime_header_checks": "$header_checks",
    "multi_instance_enable": "no",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "mydomain": "localdomain",
    "myhostname": "localhost",
    "mynetworks_style": "${{$compatibility_level} <level {2} ? {subnet} : {host}}",
    "myorigin": "$myhostname",
    "nested_header_checks": "$header_checks",
    "postscreen_cache_map": "btree:$data_directory/postscreen_cache",
    "postscreen_discard_ehlo_keyword_address_maps": "$smtpd_discard_ehlo_keyword_address_maps",
    "postscreen_reject_footer_maps": "$smtpd_reject_footer_maps",
    "process_id_directory": "pid",
    "proxy_read_maps": " ".join(f"${name}" for name in _PROXIED.split()),
    "proxy_write_maps": "$smtp_sasl_auth_cache_name $lmtp_sasl_auth_cache_name $address_verify_map "
    "$postscreen_cache_map",
    "queue_directory": "/var/spool/postfix",
    "relay_domains": "${{$compatibility_level} <level {2} ? {$mydestination} : {}}",
    "sendmail_path": "/usr/sbin/sendmail",
    "setgid_group": "postdrop",
    "shlib_directory": "/usr/lib/postfix",
    "smtp_fallback_relay": "$fallback_relay",
    "smtp_helo_name": "$myhostname",
    "smtp_host_lookup": "dns",
    "smtp_sasl_type": "cyrus",
    "smtp_tls_key_file": "$smtp_tls_cert_file",
    "smtpd_banner": "$myhostname ESMTP $mail_name",
    "smtpd_peername_lookup": "yes",
    "smtpd_relay_restrictions": "${{$compatibility_level} <level {1} ? {} : "
    "{permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination}}",
    "smtpd_sasl_auth_enable": "no",
    "smtpd_sasl_path": "smtpd",
    "smtpd_sasl_type": "cyrus",
    "smtpd_tls_key_file": "$smtpd_tls_cert_file",
    "syslog_facility": "mail",
    "syslog_name": "${multi_instance_name?{$multi_instance_name}:{postfix}}",
    "tls_append_default_CA": "no",
    "tls_random_exchange_name": "${data_directory}/prng_exch",
    "tls_random_source": "dev:/dev/urandom",
    "tlsproxy_client_CAfile": "$smtp_tls_CAfile",
    "tlsproxy_client_CApath": "$smtp_tls_CApath",
    "tlsproxy_client_policy_maps": "${tlsproxy_client_policy:$smtp_tls_policy_maps}",
    "tlsproxy_client_security_level": "${tlsproxy_client_level:$smtp_tls_security_level}",
    "tlsproxy_tls_CAfile": "$smtpd_tls_CAfile",
    "tlsproxy_tls_CApath": "$smtpd_tls_CApath",
    "tlsproxy_tls_security_level": "$smtpd_tls_security_level",
    "virtual_alias_domains": "$virtual_alias_maps",
    "virtual_alias_maps": "$virtual_maps",
    "virtual_mailbox_domains": "$virtual_mailbox_maps",
    "virtual_transport": "virtual",
}

# Known and empty: so that a question for one of them has the same answer from the table and from postconf.
_EMPTY: Final = """
    body_checks canonical_maps content_filter cyrus_sasl_config_path fallback_transport fallback_transport_maps
    header_checks lmtp_dns_reply_filter lmtp_dns_support_level lmtp_tls_trust_anchor_file mailbox_transport
    masquerade_exceptions smtp_tls_trust_anchor_file
    lmtp_discard_lhlo_keyword_address_maps lmtp_generic_maps lmtp_pix_workaround_maps lmtp_sasl_password_maps
    lmtp_sasl_path lmtp_tls_CAfile lmtp_tls_CApath lmtp_tls_policy_maps lmtp_tls_security_level mailbox_command_maps
    mailbox_transport_maps maillog_file milter_header_checks multi_instance_directories multi_instance_group
    multi_instance_name multi_instance_wrapper non_smtpd_milters postscreen_dnsbl_reply_map postscreen_dnsbl_sites
    rbl_reply_maps recipient_bcc_maps recipient_canonical_maps relay_recipient_maps relayhost relocated_maps
    sender_bcc_maps sender_canonical_maps sender_dependent_default_transport_maps sender_dependent_relayhost_maps
    smtp_discard_ehlo_keyword_address_maps smtp_dns_reply_filter smtp_dns_support_level smtp_generic_maps
    smtp_pix_workaround_maps smtp_sasl_password_maps smtp_sasl_path smtp_tls_CAfile smtp_tls_CApath smtp_tls_cert_file
    smtp_tls_per_site smtp_tls_policy_maps smtp_tls_security_level smtpd_client_restrictions smtpd_data_restrictions
    smtpd_discard_ehlo_keyword_address_maps smtpd_dns_reply_filter smtpd_end_of_data_restrictions
    smtpd_etrn_restrictions smtpd_helo_restrictions smtpd_milter_maps smtpd_milters smtpd_recipient_restrictions
    smtpd_reject_footer_maps smtpd_restriction_classes smtpd_sender_login_maps smtpd_sender_restrictions
    smtpd_tls_CAfile smtpd_tls_CApath smtpd_tls_cert_file smtpd_tls_security_level tls_server_sni_maps transport_maps
    virtual_gid_maps virtual_mailbox_base virtual_mailbox_maps virtual_uid_maps
"""

# What a package is compiled with: debian/rules, Fedora's and SUSE's postfix.spec, Arch's PKGBUILD, Alpine's APKBUILD.
_DEBIAN: Final[Mapping[str, str]] = {
    "alias_maps": "hash:/etc/aliases, nis:mail.aliases",
    "daemon_directory": "/usr/lib/postfix/sbin",
}
_FEDORA: Final[Mapping[str, str]] = {"shlib_directory": "/usr/lib64/postfix"}
_SUSE: Final[Mapping[str, str]] = {
    "daemon_directory": "/usr/lib/postfix/bin",
    "meta_directory": "/usr/lib/postfix",
    "setgid_group": "maildrop",
}
_ARCH: Final[Mapping[str, str]] = {
    "command_directory": "/usr/bin",
    "daemon_directory": "/usr/lib/postfix/bin",
    "sendmail_path": "/usr/bin/sendmail",
}
_ALPINE: Final[Mapping[str, str]] = {
    "address_verify_map": "lmdb:$data_directory/verify_cache",
    "postscreen_cache_map": "lmdb:$data_directory/postscreen_cache",
}

# By ID or ID_LIKE of os-release(5).
_DISTRIBUTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "debian": _DEBIAN,
    "ubuntu": _DEBIAN,
    "fedora": _FEDORA,
    "rhel": _FEDORA,
    "centos": _FEDORA,
    "suse": _SUSE,
    "opensuse": _SUSE,
    "sles": _SUSE,
    "arch": _ARCH,
    "alpine": _ALPINE,
}

# A file that tells a directory by lying in it, and the places that distributions give it.
_PLACES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "daemon_directory": (
        "master",
        (
            "/usr/libexec/postfix",
            "/usr/lib/postfix/sbin",
            "/usr/lib/postfix/bin",
            "/usr/lib/postfix",
            "/usr/lib64/postfix",
        ),
    ),
    "command_directory": ("postfix", ("/usr/sbin", "/usr/bin", "/usr/local/sbin")),
    "shlib_directory": ("libpostfix-global.so", ("/usr/lib/postfix", "/usr/lib64/postfix")),
}

# The value of a string parameter stands behind its name: mail_params.c, compiled. Programs that are linked without
# shared libraries of Postfix have it in themselves.
_VERSION: Final = re.compile(rb"\0mail_version\0(\d+\.\d+[\w.-]{0,40})\0")
_PROGRAM_LIMIT: Final = 16 << 20  # bytes


def load(host: Host) -> Mapping[str, str]:
    """The defaults, unexpanded; ``mail_version`` is missing where nothing tells it."""
    return _ask(host) or _looked_up(host.root)


def table(release: Mapping[str, str]) -> dict[str, str]:
    """The table for a distribution, given what os-release(5) says; no version is guessed."""
    values = {**dict.fromkeys(_EMPTY.split(), ""), **_BASE}
    for name in distribution.lineage(release):
        if name in _DISTRIBUTIONS:
            values |= _DISTRIBUTIONS[name]
            break
    return values


def _looked_up(root: Reader) -> dict[str, str]:
    """The table for a root, with directories and the version as its files tell them."""
    values = table(os_release(root))
    for parameter, (program, places) in _PLACES.items():
        candidates = (values[parameter], *places)
        there = next((place for place in candidates if _is_file(root, f"{place}/{program}")), None)
        values[parameter] = there or values[parameter]
    version = _version(root, values)
    return {**values, "mail_version": version} if version else values


def _is_file(root: Reader, path: str) -> bool:
    try:
        return root.state(path).type is FileType.FILE
    except PathError:
        return False


def _version(root: Reader, values: Mapping[str, str]) -> str | None:
    """The version of Postfix that is installed, as its library or its daemon has it."""
    for path in (f"{values['shlib_directory']}/libpostfix-global.so", f"{values['daemon_directory']}/master"):
        try:
            found = _VERSION.search(root.read(path, limit=_PROGRAM_LIMIT))
        except PathError:
            continue
        if found:
            return found[1].decode()
    return None


def _ask(host: Host) -> Mapping[str, str] | None:
    """What the live host's postconf says, kept until the program changes; None where it cannot be asked."""
    if host.run is None:
        return None
    program, fingerprint = _postconf(host.root)
    if program is None:
        return None
    kept = host.cache.get(_CACHE, fingerprint)
    if (
        isinstance(kept, dict)
        and kept.get("queue_directory")
        and all(isinstance(value, str) for value in kept.values())
    ):
        return kept
    try:
        # A directory without a master.cf: else the default instance's would add parameters, or be refused.
        done = host.run.run((program, "-c", "/dev/null", "-d"), timeout=_TIMEOUT)
    except PathError:
        return None
    values = dict(_settings(done.output))
    if done.code != 0 or not values.get("queue_directory"):
        return None
    # Its own process number: true of nobody else.
    values.pop("process_id", None)
    host.cache.put(_CACHE, fingerprint, values)
    return values


def _postconf(root: Reader) -> tuple[str | None, str]:
    """Where postconf is, and what changes when it is replaced."""
    for path in _POSTCONF:
        try:
            state = root.state(path)
        except PathError:
            continue
        if state.type is FileType.FILE and state.identity is not None:
            return path, ":".join(map(str, state.identity))
    return None, ""


def _settings(output: str) -> Iterator[tuple[str, str]]:
    """The ``name = value`` lines of postconf; warnings are not of this form."""
    for line in output.split("\n"):
        name, equals, value = line.partition(" =")
        if equals and " " not in name:
            yield name, value.strip()


def os_release(root: Reader) -> dict[str, str]:
    """os-release(5) as a dictionary; empty where there is none, or it cannot be read."""
    try:
        return distribution.release(root.read)
    except PathError:
        return {}
