"""The gallery: pictures of records."""
