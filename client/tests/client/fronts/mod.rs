//! What both fronts promise. The module that includes this one says which [`Client`] is meant.

use super::Client;

mod copies;
mod faulty;
mod follow;
mod load;
mod locks;
mod methods;
mod one_copy;
mod tls;
mod trouble;

/// The name of this program's test `test` in `module`, as `--exact` wants it.
fn test_name(module: &str, test: &str) -> String {
    let (_program, module) = module.split_once("::").expect("the program's name first");
    format!("{module}::{test}")
}
