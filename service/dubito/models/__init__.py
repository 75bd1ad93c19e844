"""The models of a server: what the registry holds of them, and what is on its device.

opening    the registry of the settings
library    models, versions, aliases: what is kept, and what of it is loaded
catalogue  engines that are loaded
warming    dummy rows, so that the first request is not the slow one
sampling   a request's choices over the version's defaults
memory     what an engine holds, and giving it back
pins       models that are always loaded
members    the networks that answer: one version or several
companions  other servers in its place, told what was loaded here
"""
