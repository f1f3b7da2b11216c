#!/bin/sh
# Enqueue a shell command: sh producer.sh 'tar czf backup.tgz src'
set -eu
spool=${QUEUECTL_SPOOL:-$HOME/.queuectl}
name=from-sh-$(date +%s)-$$
draft=$spool/tmp/$name

# In JSON a quote and a backslash need a backslash before them. Other special characters are refused here.
case $1 in *[[:cntrl:]]*) echo "one line, without control characters" >&2; exit 2 ;; esac
command=$(printf '%s' "$1" | sed 's/["\\]/\\&/g')

umask 077
printf '{"command": "%s", "cwd": "%s"}\n' "$command" "$(pwd | sed 's/["\\]/\\&/g')" >"$draft" # 1. the whole file, in tmp/
sync "$draft"                           # 2. its bytes on the disk
ln "$draft" "$spool/pending/$name.json" # 3. at once into pending/; ln refuses an existing name
rm "$draft"
sync "$spool/pending"                   # 4. its name on the disk: now the job survives a power cut
echo "$name"
