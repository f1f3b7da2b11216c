"""Enqueue a command without queuectl: python producer.py tar czf backup.tgz src"""

import json
import os
import secrets
import sys
import time

spool = os.path.expanduser(os.environ.get("QUEUECTL_SPOOL") or "~/.queuectl")
name = f"from-python-{int(time.time())}-{secrets.token_hex(4)}"
draft = os.path.join(spool, "tmp", name)


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
with open(fd, "w", encoding="utf-8") as file:  # 1. the whole file, in tmp/
    json.dump({"command": sys.argv[1:], "cwd": os.getcwd()}, file, ensure_ascii=False)
sync(draft)  # 2. its bytes on the disk
os.link(draft, os.path.join(spool, "pending", f"{name}.json"))  # 3. at once into pending/, never onto an existing name
os.unlink(draft)
sync(os.path.join(spool, "pending"))  # 4. its name on the disk: now the job survives a power cut
print(name)
