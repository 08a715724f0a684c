"""The database of dpkg: lists of files, status, journal, and the package that is being unpacked (dpkg(1)).

The order in which dpkg unpacks a package (src/main/unpack.c) is: control files to ``tmp.ci``, new files beside the old
ones, all of them renamed into place, the list of files (replaced whole), control files from ``tmp.ci`` to ``info``. So
there are new files without a list as long as ``tmp.ci`` holds the control files, which name them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from chrootsync.model import Reader
from chrootsync.packages.reading import STATUS_LIMIT, Names, label, names_in, read, text

INFO = "/var/lib/dpkg/info"
STATUS = "/var/lib/dpkg/status"
JOURNAL = "/var/lib/dpkg/updates"
UNPACKING = "/var/lib/dpkg/tmp.ci"

FEW = 8  # names, which are found sooner than a list is cut into lines; of 32 that takes twice as long


def find(reader: Reader, names: Names) -> Mapping[bytes, str]:
    """The packages of those paths that dpkg knows of."""
    # First what is being unpacked: if its control files are gone by now, its list is there.
    unpacking = _unpacking(reader, names)
    listed = _listed(reader, names)
    if not listed:
        return unpacking
    stanzas = _stanzas(reader)
    versions = {package: _version(stanzas, package) for package in set(listed.values())}
    found = {path: label(package.partition(":")[0], versions[package]) for path, package in listed.items()}
    return {**unpacking, **found}


def _unpacking(reader: Reader, names: Names) -> dict[bytes, str]:
    """What comes with the package that is being unpacked; nothing where it has no checksums, which are optional."""
    control = read(reader, f"{UNPACKING}/control").split(b"\n")
    package = _field(control, b"Package")
    if not package:
        return {}
    # Lines are "CHECKSUM  usr/lib/x" (deb-md5sums(5)); "/etc/x" or "remove-on-upgrade /etc/x" (deb-conffiles(5)).
    files = {b"/" + line.partition(b"  ")[2] for line in read(reader, f"{UNPACKING}/md5sums").split(b"\n")}
    files |= {line[line.find(b"/") :].rstrip() for line in read(reader, f"{UNPACKING}/conffiles").split(b"\n")}
    return dict.fromkeys(names & files, label(package, _field(control, b"Version")))


def _listed(reader: Reader, names: Names) -> dict[bytes, str]:
    """The packages, as dpkg names their lists (``name`` or ``name:architecture``), that list one of the paths."""
    found: dict[bytes, str] = {}
    for name in names_in(reader, INFO):
        if name.endswith(".list"):
            data = read(reader, f"{INFO}/{name}")
            if len(names) <= FEW and not any(path in data for path in names):
                continue  # as nearly all lists of a host; they have seven megabytes on one with 750 packages
            for path in names.intersection(data.split(b"\n")):
                found.setdefault(path, name.removesuffix(".list"))
    return found


def _stanzas(reader: Reader) -> Sequence[bytes]:
    """What says in which state packages are, the newest first.

    Meanwhile dpkg writes each package that changes to a numbered file of its own, and the whole status at the end.
    """
    numbers = sorted(name for name in names_in(reader, JOURNAL) if name.isdigit())
    journal = [read(reader, f"{JOURNAL}/{number}") for number in reversed(numbers)]
    return [b"\n\n" + data for data in (*journal, read(reader, STATUS, STATUS_LIMIT))]


def _version(stanzas: Sequence[bytes], package: str) -> str:
    """The version of a package (``name`` or ``name:architecture``); empty where it is not to be found."""
    name, _, architecture = package.encode("utf-8", "surrogateescape").partition(b":")
    for data in stanzas:
        for stanza in _of_package(data, name):
            if not architecture or b"Architecture: " + architecture in stanza:
                return _field(stanza, b"Version")
    return ""


def _of_package(data: bytes, name: bytes) -> Iterator[list[bytes]]:
    """The stanzas of a package, as lines."""
    start = 0
    while (start := data.find(b"\n\nPackage: " + name + b"\n", start)) >= 0:
        start += 2
        end = data.find(b"\n\n", start)
        yield data[start : end if end >= 0 else None].split(b"\n")


def _field(stanza: Sequence[bytes], name: bytes) -> str:
    start = name + b": "
    return next((text(line.removeprefix(start)) for line in stanza if line.startswith(start)), "")
