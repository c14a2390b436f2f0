//! What kgen does, a file each; every one takes its arguments as values.

pub mod certs;
pub mod diff;
pub mod hardening;
pub mod init;
pub mod inventory;
pub mod kubeconfig;
pub mod lock;
pub mod manual;
pub mod merge;
pub mod render;
pub mod routes;
pub mod schema;
pub mod serve;
pub mod shared;
pub mod sizes;
pub mod user_data;
pub mod validate;
pub mod wait;

mod azure;
mod documents;
mod extras;
mod jump;
mod openstack;
mod progress;
mod pxe;
pub(crate) mod terminal;
