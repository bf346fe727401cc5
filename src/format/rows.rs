//! Columns under construction, with a way back.
