//! A TCP proxy that does to connections what networks do: delays, cuts, stalls, resets, crumbs.
