// Sends a Messenger message over HTTP, waits up to ten seconds for its outcome and prints the answer:
//
//   META_DISPATCH_TSID=… node examples/send.mjs LINE DEST TEXT [KEY]
//
// META_DISPATCH_URL names another address than http://127.0.0.1:8080. The KEY is an idempotency key: a call that
// repeats it logs no second message. An error answer, and any other failure, ends with exit code 1. Needs
// Node 18 or later.

const [line, dest, text, key, ...rest] = process.argv.slice(2);
if (text === undefined || rest.length > 0) {
  console.error('usage: send.mjs LINE DEST TEXT [KEY]');
  process.exit(2);
}
const { META_DISPATCH_URL: url = 'http://127.0.0.1:8080', META_DISPATCH_TSID: tsid } = process.env;
if (!tsid) {
  console.error('META_DISPATCH_TSID holds no token');
  process.exit(2);
}

const headers = { Authorization: `Bearer ${tsid}` };
if (key !== undefined) headers['Idempotency-Key'] = key;
try {
  const answer = await fetch(`${url}/api/v2/MakeMessenger.php`, {
    method: 'POST',
    headers,
    body: new URLSearchParams({ app_id: line, dest, mdata: text, wait: '10' }),
    signal: AbortSignal.timeout(40_000),
  });
  console.log(await answer.text());
  process.exitCode = answer.ok ? 0 : 1;
} catch (error) {
  console.error(`no answer: ${error.cause?.message ?? error.message}`);
  process.exitCode = 1;
}
