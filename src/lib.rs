//! ketch: a cache server that speaks memcached's protocols on its own storage engine.
//!
//! The rooms, in the order a request passes them: [`net`] (sockets, one event loop a worker), [`command`] (what a
//! request means), [`cache`] (the store). [`state`] is what the server is, `report` what it tells of itself, [`snapshot`]
//! writes it down. [`settings`]
//! and [`sys`] serve the start, [`server`] builds and runs it all; [`clock`], [`stats`], [`events`] and [`keyspace`] are leaves, open
//! to everybody. ARCHITECTURE.md has the map.
#![deny(unsafe_code)]

mod admin;
pub mod auth;
pub mod cache;
pub mod clock;
pub mod command;
pub mod events;
pub mod handover;
pub mod keyspace;
pub mod knobs;
mod membership;
pub mod net;
pub mod packing;
pub mod proxy;
mod report;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod state;
pub mod stats;
pub mod sys;
