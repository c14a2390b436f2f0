//! Which kernel modules must be loaded, in which order.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The files of these modules and of all they need, in the order of loading, relative
/// to the kernel's folder of modules. `dependencies` is its modules.dep, `builtin` its
/// modules.builtin: what is in the kernel needs no file.
pub(crate) fn order(dependencies: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    let table: BTreeMap<&str, (&str, Vec<&str>)> = lines
        .map(|(path, needs)| (name(path), (path, needs.split_whitespace().collect())))
        .collect();
    let mut files: Vec<String> = Vec::new();
    for module in wanted {
        if let Some((path, needs)) = table.get(module) {
            // depmod lists all of them, the first to be loaded last.
            for file in needs.iter().rev().chain([path]) {
                if !files.iter().any(|known| known == file) {
                    files.push((*file).to_owned());
                }
            }
        } else if !builtin.lines().any(|path| name(path) == *module) {
            return Err(Error::Content(format!(
                "the kernel has no module {module}, which the netboot image needs"
            )));
        }
    }
    Ok(files)
}

/// `loop` of `kernel/drivers/block/loop.ko.xz`. The kernel takes both signs for one.
fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/squashfs/squashfs.ko.xz:\n\
        kernel/drivers/block/loop.ko.xz:\n\
        kernel/fs/udf/udf.ko.xz: kernel/lib/crc-itu-t.ko.xz kernel/drivers/cdrom/cdrom.ko.xz\n";

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let files = order(DEP, "", &["udf", "loop", "udf"]).expect("known modules");
        assert_eq!(
            files,
            [
                "kernel/drivers/cdrom/cdrom.ko.xz",
                "kernel/lib/crc-itu-t.ko.xz",
                "kernel/fs/udf/udf.ko.xz",
                "kernel/drivers/block/loop.ko.xz",
            ]
        );
    }

    #[test]
    fn what_is_in_the_kernel_needs_no_file() {
        let builtin = "kernel/fs/overlayfs/overlay.ko\n";
        assert_eq!(order(DEP, builtin, &["overlay"]).expect("builtin"), [""; 0]);
        let error = order(DEP, builtin, &["erofs"])
            .expect_err("unknown")
            .to_string();
        assert!(error.starts_with("E-IMAGE-CONTENT"), "{error}");
    }
}
