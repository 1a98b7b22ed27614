//! The real gateway, as a process, against scripted services: what a user would see, on both event loops. One file per feature.

mod support;

mod harness;
