<?php

// Sends a Messenger message over HTTP, waits up to ten seconds for its outcome and prints the answer:
//
//   META_DISPATCH_TSID=… php examples/send.php LINE DEST TEXT [KEY]
//
// META_DISPATCH_URL names another address than http://127.0.0.1:8080. The KEY is an idempotency key: a call that
// repeats it logs no second message. An error answer, and any other failure, ends with exit code 1. Needs no extension;
// `allow_url_fopen` has to be on, as it is by default.

if ($argc < 4 || $argc > 5) {
    fwrite(STDERR, "usage: $argv[0] LINE DEST TEXT [KEY]\n");
    exit(2);
}
$url = getenv('META_DISPATCH_URL') ?: 'http://127.0.0.1:8080';
$tsid = getenv('META_DISPATCH_TSID') ?: '';
if ($tsid === '') {
    fwrite(STDERR, "META_DISPATCH_TSID holds no token\n");
    exit(2);
}

$headers = ["Authorization: Bearer $tsid", 'Content-Type: application/x-www-form-urlencoded'];
if ($argc === 5) {
    $headers[] = "Idempotency-Key: $argv[4]";
}
$call = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => $headers,
    'content' => http_build_query(['app_id' => $argv[1], 'dest' => $argv[2], 'mdata' => $argv[3], 'wait' => 10]),
    'timeout' => 40,
    'ignore_errors' => true, // an error answer has a body, as every answer
]]);
$answer = @fopen("$url/api/v2/MakeMessenger.php", 'r', false, $call);
if ($answer === false) {
    fwrite(STDERR, 'no answer: ' . error_get_last()['message'] . "\n");
    exit(1);
}
echo stream_get_contents($answer), "\n";
$status = stream_get_meta_data($answer)['wrapper_data'][0]; // such as HTTP/1.1 200 OK
exit(preg_match('~^HTTP/\S+ 2~', $status) === 1 ? 0 : 1);
