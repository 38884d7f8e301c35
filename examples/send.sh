#!/bin/sh
# Sends a Messenger message over HTTP, waits up to ten seconds for its outcome and prints the answer:
#
#   META_DISPATCH_TSID=… sh examples/send.sh LINE DEST TEXT [KEY]
#
# META_DISPATCH_URL names another address than http://127.0.0.1:8080. The KEY is an idempotency key: a call that repeats
# it logs no second message. An error answer ends with exit code 22, another failure with curl's own.
# Needs curl 7.76 or later.
set -eu

if [ $# -lt 3 ] || [ $# -gt 4 ]; then
    echo "usage: $0 LINE DEST TEXT [KEY]" >&2
    exit 2
fi
url=${META_DISPATCH_URL:-http://127.0.0.1:8080}
: "${META_DISPATCH_TSID:?holds no token}"

# Headers come over standard input: other users of the machine see the arguments of a program.
status=0
answer=$({
    printf 'Authorization: Bearer %s\n' "$META_DISPATCH_TSID"
    [ $# -eq 3 ] || printf 'Idempotency-Key: %s\n' "$4"
} | curl --silent --show-error --fail-with-body --max-time 40 --header @- \
    --data wait=10 --data-urlencode "app_id=$1" --data-urlencode "dest=$2" --data-urlencode "mdata=$3" \
    "$url/api/v2/MakeMessenger.php") || status=$?
[ -z "$answer" ] || printf '%s\n' "$answer"
exit $status
