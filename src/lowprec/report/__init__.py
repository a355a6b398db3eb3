"""What lowprec shows: terminal tables, HTML views and the report page."""
