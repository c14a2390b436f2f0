//! What kgen does, a file each; every one takes its arguments as values.

pub mod init;
pub mod kubeconfig;
pub mod render;
pub mod user_data;

mod terminal;
