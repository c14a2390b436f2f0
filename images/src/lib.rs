//! Boot images with knode inside, for PXE and disks, and the catalogue of
//! what was built.
//!
//! Empty until the first image is built here; machines boot their
//! distribution's own image and fetch knode until then.
