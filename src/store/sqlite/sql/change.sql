-- An array for each change of a row that was found to match, read under the lock of this transaction.
update cdls set
    status = j.value->>1,
    fence = j.value->>2,
    status_code = coalesce(j.value->>3, status_code),
    message_id = coalesce(j.value->>4, message_id),
    error_code = iif(j.value->>5, j.value->>6, error_code),
    error_subcode = iif(j.value->>5, j.value->>7, error_subcode),
    error_kind = iif(j.value->>5, j.value->>8, coalesce(j.value->>8, error_kind)),
    error_message = iif(j.value->>5, j.value->>9, error_message),
    fbtrace_id = iif(j.value->>5, j.value->>10, fbtrace_id),
    attempts = attempts + (j.value->>11),
    tries = tries + (j.value->>12),
    ambiguous_attempts = ambiguous_attempts + (j.value->>13),
    crashes = crashes + (j.value->>14),
    sent_at = coalesce(j.value->>15, sent_at),
    next_at = j.value->>16,
    done_at = coalesce(j.value->>17, done_at)
from json_each(?1) j
where cdls_id = j.value->>0
