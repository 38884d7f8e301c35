//! All integration tests, as one program. `tests/run` provides the servers.

use rstest_reuse as _;

mod architecture;
mod broker_contract;
mod broker_rabbitmq;
mod cli;
mod http_contract;
mod pipeline;
mod process;
mod store_contract;
mod support;
