//! `kgen validate` and what it says of a document.

use super::Folder;

/// What `kgen validate` says of a document: its status, and everything.
pub fn validate(document: &str, args: &[&str]) -> (i32, String) {
    let folder = Folder::empty();
    folder.write("doc", document);
    let output = folder
        .kgen()
        .args(["validate", "doc"])
        .args(args)
        .output()
        .unwrap();
    assert_eq!(folder.tree().len(), 1, "something was written");
    let told = [output.stderr, output.stdout].concat();
    let told = String::from_utf8(told).unwrap();
    assert!(!told.contains("panicked"), "{told}");
    (output.status.code().unwrap(), told)
}

/// A document that is refused, with its place and the reason.
pub fn refused(document: &str, place: &str, why: &str) {
    let (status, told) = validate(document, &[]);
    assert_eq!(status, 2, "{document}\n{told}");
    assert!(
        told.contains(&format!("doc:{place}: ")),
        "{place} of {document}\n{told}"
    );
    assert!(told.contains(why), "{why} of {document}\n{told}");
}

/// A document that is doubted, and refused only with --strict.
pub fn doubted(document: &str, place: &str, why: &str) {
    let (status, told) = validate(document, &[]);
    assert_eq!(status, 0, "{document}\n{told}");
    assert!(
        told.contains(&format!("⚠ doc:{place}: ")),
        "{place} of {document}\n{told}"
    );
    assert!(told.contains(why), "{why} of {document}\n{told}");
    assert!(told.contains("doc: valid for "), "{told}");
    assert_eq!(validate(document, &["--strict"]).0, 2, "{document}");
}

pub fn accepted(document: &str) {
    let (status, told) = validate(document, &["--strict"]);
    assert_eq!(status, 0, "{document}\n{told}");
}
