"""Cost as the work grows: each curve's growth is measured, fitted and held against what is expected of it."""
