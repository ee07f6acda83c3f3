"""One page that shows an inspection: a single HTML file that opens by double-click and asks nothing of the network.

`render` makes the page's text from the template, the style and the script beside it (`page.*`); `data` is what the
script shows, picture by picture; `charts` are the histograms as numbers.
"""

from imagesets.inspection.page.render import MAX_PICTURES, is_page, render_page, thumbnail_limits

__all__ = ["MAX_PICTURES", "is_page", "render_page", "thumbnail_limits"]
