"""What the documentation is made with: pictures, and the hooks of the site."""
