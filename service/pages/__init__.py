"""The pages for browsers: they work without the internet, from files that are served with them."""
