"""Units and hooks: what is installed where, so that chrootsync runs by itself.

``items`` says what a target consists of, ``table`` lists the targets as data, ``texts`` holds what hooks say, ``units``
what is for systemd, ``marks`` tells our files from those of others, ``plan`` compares with what is there and carries it
out, ``commands`` are those around it on the live host.
"""
