"""What schemathesis needs to know beside the document: how NDJSON is written, and what is accepted.

Every parameter of a submission may be left out, as it may stand elsewhere, so what is made up is nearly always refused. Half of
it is completed here, so that texts of all kinds are logged, too.
"""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()


def completed(ctx, parameters, may_be_all):
    path = ctx.operation.path
    if not path.endswith(".php") or not isinstance(parameters, dict) or len(parameters) % 2:
        return parameters
    # A token, a time or a URL is never hit upon, and nothing is sent that could be waited for.
    for name in ("tsid", "sid", "app_id", "v8l_id", "mtype", "httpdup", "send_at", "wait"):
        parameters.pop(name, None)
    if may_be_all:
        parameters["app_id"] = 2 if "Instagram" in path else 1
        parameters.setdefault("dest", "somebody")
        parameters.setdefault("mdata", "something")
    return parameters


@schemathesis.hook
def map_query(ctx, query):
    return completed(ctx, query, ctx.operation.method.upper() == "GET")


@schemathesis.hook
def map_body(ctx, body):
    return completed(ctx, body, True)
