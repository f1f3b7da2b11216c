#!/bin/sh
# What a job of the soak does: job.sh OUTSIDE KIND SECONDS [KEY [PLACES]]
#
# With a KEY, no more jobs of that key may run at once than there are PLACES; one without.
# It holds a lock of its id for as long as any process of the run lives, background children excepted, so a second run
# beside it shows even where the first one was killed and left no end.
outside=$1 kind=$2 seconds=$3 key=$4 places=${5:-1}
id=$QUEUECTL_JOB_ID run=${QUEUECTL_RUN%%.*}
stamp() {
    read -r now _ </proc/uptime
    echo "$1 $id $run $now $$" >>"$outside/stamps"
}
exec 9>>"$outside/locks/$id"
flock -n 9 || stamp overlap
if [ -n "$key" ]; then
    while :; do
        exec 8>>"$outside/locks/$key.$places"
        flock -n 8 && break
        places=$((places - 1))
        [ "$places" -gt 0 ] || { stamp overlap && break; }
    done
fi
stamp start
case $kind in
ok) sleep "$seconds" ;;
fail) stamp end-3 && exit 3 ;;
flaky) [ "$QUEUECTL_ATTEMPT" -ge 2 ] || { stamp end-4 && exit 4; } ;;
timeout) sleep 30 ;;
stubborn)
    trap '' TERM
    sleep 30
    sleep 30
    ;;
stopped)
    sleep 30 &
    kill -STOP $!
    wait
    ;;
background) sleep 2 9>&- & ;;
flood) head -c 3000000 /dev/zero | tr '\0' x ;;
escape) env -i setsid -w sh -c 'sleep "$0"' "$seconds" "$outside" ;;
killer)
    if tr '\0' ' ' <"/proc/$PPID/cmdline" | grep -q 'queuectl.*worker.*run'; then
        stamp "killed-$PPID"
        kill -9 "$PPID"
    fi
    sleep 30
    ;;
esac
stamp end-0
