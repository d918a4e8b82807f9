//! `ketchctl` as a process, against stock memcached and ketch.

#[path = "../../../client/tests/client/as_node.rs"]
mod as_node;
mod audit;
mod commands;
mod copy;
mod insight;
mod relay;
mod ring;
mod run;
mod shift;
mod snapshot;
mod up;
