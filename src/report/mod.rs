//! What the server counts and how it is set, under memcached's keys and in their order.
//!
//! A key that has no meaning here (another memory of connections, no watchers) is shown with the value it would have if
//! nothing of the kind ever happened: clients look for it.

mod classes;
mod conns;
mod general;
mod lines;
mod settings;

pub(crate) use classes::{item_lines, slab_lines};
pub(crate) use conns::conn_lines;
pub(crate) use general::general;
pub(crate) use settings::settings;
