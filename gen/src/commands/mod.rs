//! What kgen does, a file each; every one takes its arguments as values.

pub mod certs;
pub mod diff;
pub mod init;
pub mod kubeconfig;
pub mod manual;
pub mod render;
pub mod sizes;
pub mod user_data;
pub mod validate;

mod terminal;
