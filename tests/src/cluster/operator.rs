//! An operator who works on one of the machines.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::Cluster;

impl Cluster {
    /// Puts what `kgen kubeconfig` gives an operator into a folder of a machine, as curl
    /// takes it: `ca.crt`, `client.crt` and `client.key`.
    pub fn operator_on(&mut self, name: &str, folder: &str) -> Result<()> {
        let kubeconfig = self.kgen(&["kubeconfig"])?.ok()?;
        let kubeconfig: Value = serde_yaml::from_str(&kubeconfig)?;
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let user = &kubeconfig["users"][0]["user"];
        let node = self.node(name)?;
        for (file, place, key) in [
            ("ca.crt", cluster, "certificate-authority-data"),
            ("client.crt", user, "client-certificate-data"),
            ("client.key", user, "client-key-data"),
        ] {
            let data = place[key].as_str().with_context(|| format!("no {key}"))?;
            node.write_file(&format!("{folder}/{file}"), &BASE64.decode(data)?)?;
        }
        Ok(())
    }
}
