//! Namespaces, links and peers for tests and the demo.
