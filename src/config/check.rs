//! From the file as written to the configuration as used: all errors at once.
