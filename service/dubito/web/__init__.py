"""The page at `/`, for people who would rather look than read: files that ask `/v1` themselves.

The shell holds no data and is open; all that it shows comes through the routes of the API, with the
key that was entered. No file comes from another host.

    shell.py    serves the files

The files, below `static`: `index.html`, `main.js` (which view stands), `dom.js`, style; folders

* `server`: asks the API, keeps the key, reads server-sent events;
* `rows`: rows as people have them: text, files, a pad to draw on, as pictures;
* `figures`: what is drawn, by uPlot, and what is said of it in words;
* `views`: one file for each part of the page;
* `drawing`: uPlot itself, which `scripts/hatch_build.py` brings when Dubito is built.
"""

from dubito.web.shell import add_page

__all__ = ["add_page"]
