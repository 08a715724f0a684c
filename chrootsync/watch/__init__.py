"""The watcher: a small long-running process that starts a pass when something changes that the chroots depend on.

It is a program of its own (``python -I -m chrootsync.watch``, which ``chrootsync watch`` becomes), so that hours of
waiting cost little memory: the command line, the rules and SQLite are loaded by the passes alone. A pass is a child
process that checks, repairs and reloads everything, and reports what to watch from then on.

- ``places`` says in which directories which names matter to a path.
- ``ears`` hears of changes there: by inotify, or by polling.
- ``quiet`` decides when a burst of changes has settled.
- ``passes`` is what a pass tells, and how it is told to begin.
- ``notify`` speaks to systemd.
- ``loop`` is the story.
"""
