# Names for the scripts of the repository; `just` lists them. Each command below also runs by itself.

# List these recipes
[private]
default:
    @{{ just_executable() }} --list --unsorted

# Run the tests that need no server
test *ARGUMENTS:
    cargo test {{ ARGUMENTS }}

# Run all tests on throwaway servers, or those that arguments of `cargo test` select
test-all *ARGUMENTS:
    tests/run {{ ARGUMENTS }}

# Kill, freeze and cut everything under load; `just chaos --help` lists the options
chaos *ARGUMENTS:
    tests/chaos/run {{ ARGUMENTS }}

# Run the fuzz targets; `just fuzz --help` lists the options
fuzz *ARGUMENTS:
    fuzz/run {{ ARGUMENTS }}

# Run the benchmark; `just bench --help` lists the scenarios
bench *ARGUMENTS:
    bench/run {{ ARGUMENTS }}

# Write docs/openapi.json and docs/graph-codes.md, check docs/asyncapi.json, and make the pages of the code in target/doc
docs:
    cargo build
    target/debug/meta-dispatch openapi > docs/openapi.json
    target/debug/meta-dispatch codes --page > docs/graph-codes.md
    cargo test --workspace --test it -- printed_document asyncapi_document
    if command -v npm > /dev/null; then .ci/asyncapi; fi
    cargo doc --no-deps --document-private-items

# Run the tests that need no server inside the limits of a container
hardened *ARGUMENTS:
    tests/hardened {{ ARGUMENTS }}

# Check format, lints, scripts, spelling and dependencies
lint:
    .ci/run lint
