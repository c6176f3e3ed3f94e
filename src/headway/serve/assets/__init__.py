"""The live page's style and script, as text that is put into the page."""
