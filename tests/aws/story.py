"""AWS's own clients against the router's HTTP.

    python story.py PART

Where and as who: AWS's environment variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). PART is a
function of one of the modules beside this file.
"""

import sys

import clients
import groups
import levels
import pages
import signing
import things

PART = sys.argv[1]
[part] = [getattr(module, PART) for module in [clients, levels, groups, things, pages, signing] if hasattr(module, PART)]
part()
print(f"{PART}: {len(clients.CHECKED)} operations answered as AWS does")
