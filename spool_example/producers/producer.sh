#!/bin/sh
# Hand a shell command over: sh producer.sh 'tar czf backup.tgz src'
set -eu
spool=${QUEUECTL_SPOOL:-$HOME/.queuectl}
name=from-sh-$(date +%s)-$$
draft=$spool/tmp/$name

# In JSON a backslash and a quote need a backslash, and a line end would be \n: here one line is enough.
case $1 in *[[:cntrl:]]*) echo "one line, without control characters" >&2; exit 2 ;; esac
command=$(printf '%s' "$1" | sed 's/["\\]/\\&/g')

umask 077
printf '{"command": "%s", "cwd": "%s"}\n' "$command" "$(pwd | sed 's/["\\]/\\&/g')" >"$draft" # 1. the whole file, in tmp/
sync "$draft"                           # 2. its bytes on the disk
ln "$draft" "$spool/pending/$name.json" # 3. all at once into pending/; ln refuses a name that is there
rm "$draft"
sync "$spool/pending"                   # 4. its name on the disk: from here on it survives a power cut
echo "$name"
