# Names for the scripts of the repository; `just` lists them. Each command below also runs by itself.

# List these recipes
[private]
default:
    @{{ just_executable() }} --list --unsorted

# Tests of `tests/it` without servers: whole modules, and the SQLite or embedded case of tests that run on both.

modules := "architecture:: openapi:: simulator:: cli:: examples::over_http examples::are_all"
cases := "sqlite embedded Embedded EMBEDDED"

# Tests of those modules that need a server.

but := "--skip cli::postgres --skip cli::settle_answers --skip a_broker_that_answers_passes_the_check"

# Run the tests that need no server
test:
    cargo build --workspace --examples
    cargo test --workspace --lib --bins
    cargo test --workspace --test it -- {{ modules }} {{ cases }} {{ but }}
    @echo 'Left out: all tests that need PostgreSQL or RabbitMQ, and some others. `just test-all` runs them.'

# Run all tests on throwaway servers, or those that arguments of `cargo test` select
test-all *ARGUMENTS:
    tests/run {{ ARGUMENTS }}

# Kill, freeze and cut everything under load; `just chaos --help` lists the options
chaos *ARGUMENTS:
    tests/chaos/run {{ ARGUMENTS }}

# Run the benchmark; `just bench --help` lists the scenarios
bench *ARGUMENTS:
    bench/run {{ ARGUMENTS }}

# Write docs/openapi.json, check docs/asyncapi.json, and make the pages of the code in target/doc
docs:
    cargo build
    target/debug/meta-dispatch openapi > docs/openapi.json
    cargo test --workspace --test it -- the_printed_document the_asyncapi_document
    if command -v npm > /dev/null; then .ci/asyncapi; fi
    cargo doc --no-deps --document-private-items

# Check format, lints, scripts and spelling
lint:
    .ci/run lint
