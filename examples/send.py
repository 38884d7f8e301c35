"""Sends a Messenger message over HTTP, waits up to ten seconds for its outcome and prints the answer:

    META_DISPATCH_TSID=… python3 examples/send.py LINE DEST TEXT [KEY]

META_DISPATCH_URL names another address than http://127.0.0.1:8080. The KEY is an idempotency key: a call that repeats
it logs no second message. An error answer, and any other failure, ends with exit code 1.
"""

import os
import sys
import urllib.error
import urllib.parse
import urllib.request

if not 4 <= len(sys.argv) <= 5:
    sys.exit(f"usage: {sys.argv[0]} LINE DEST TEXT [KEY]")
line, dest, text, *key = sys.argv[1:]
url = os.environ.get("META_DISPATCH_URL", "http://127.0.0.1:8080")
tsid = os.environ.get("META_DISPATCH_TSID") or sys.exit("META_DISPATCH_TSID holds no token")

parameters = {"app_id": line, "dest": dest, "mdata": text, "wait": 10}
request = urllib.request.Request(
    f"{url}/api/v2/MakeMessenger.php",
    data=urllib.parse.urlencode(parameters).encode(),
    headers={"Authorization": f"Bearer {tsid}"},
)
if key:
    request.add_header("Idempotency-Key", key[0])
try:
    with urllib.request.urlopen(request, timeout=40) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as refused:  # has a body, as every answer
    print(refused.read().decode())
    sys.exit(1)
except OSError as error:
    sys.exit(f"no answer: {error}")
