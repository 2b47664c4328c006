"""What people see: statistics, report, pictures, dataset card, catalogs, exports and readers for training."""
