//! What crosses crates: one executable, because each that is linked with the host
//! costs the build half a minute. `cargo test --test all crash::` runs one file.
//!
//! | file | against what |
//! | --- | --- |
//! | `protocol/`, `simulation` | hosts in this process, on the log in memory |
//! | `log_conformance` | both logs, one suite |
//! | `harness` | the tests' own proxy and publisher |
//! | `wit`, `weir_test`, `weir_new` | the command alone |
//! | all others | real servers and real hosts |

mod activity;
mod adopt;
mod bad_input;
mod chaos;
mod cli;
mod crash;
mod dead_letters;
mod deploy;
mod harness;
mod history;
mod hosts;
mod languages;
mod locks;
mod log_conformance;
mod metrics;
mod outbox;
mod permissions;
mod postgres;
mod protocol;
mod readme;
mod replay;
mod restart;
mod sagas;
mod shop;
mod simulation;
mod state_size;
mod timers;
mod unknown_outcome;
mod weir_new;
mod weir_test;
mod wit;
mod zombie;
