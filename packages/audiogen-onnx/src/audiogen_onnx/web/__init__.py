"""A static page that makes music in the browser out of exported folders: `site` writes it, `page` is it."""
