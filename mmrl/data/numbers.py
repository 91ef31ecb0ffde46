"""Numbers and units as people and models write them: one pattern for every reader.

The patterns are possessive: a text is read in one pass, whatever a model wrote.
"""

from __future__ import annotations

import re

UNSIGNED = r"(?:\d++(?:\.\d*+)?+|\.\d++)"
"""A decimal without a sign: 5, 5., 5.25, .25."""
NUMBER = r"[-+]?+" + UNSIGNED
"""A decimal with or without a sign, for use inside another pattern."""

LENGTHS = "m|km|cm|mm|dm|nm|µm|μm|um|in|ft|yd|mi|px|pt"
MASSES = "g|kg|mg|µg|μg|ug|lb|lbs|oz"
TIMES = "s|ms|µs|μs|us|ns|sec|secs|min|mins|h|hr|hrs|yr|yrs"
VOLUMES = "l|L|ml|mL|dl|dL|cl|cL|cc"
PHYSICS = (
    "N|kN|J|kJ|MJ|cal|kcal|W|kW|MW|GW|Wh|kWh|mWh|V|kV|mV|A|mA|µA|Ah|mAh|Pa|kPa|MPa|hPa|bar|atm|psi|"
    "Hz|kHz|MHz|GHz|Ω|kΩ|MΩ|F|µF|nF|pF|C|mol|mmol|eV|keV|MeV|GeV|dB|rad|lm|lx|mmHg|IU|HU|Gy|Sv|mSv"
)
RATES = "mph|kph|kmh|rpm|bpm|fps|ppm|ppb"
BYTES = "KB|kB|MB|GB|TB|kbps|Mbps|Gbps"
MONEY = "USD|EUR|GBP|CNY|RMB|JPY|INR|€|£|¥"
NAMES = (
    "(?:kilo|centi|milli|micro|nano|deci|mega|giga)?(?:met(?:er|re)s?|grams?|lit(?:er|re)s?|"
    "seconds?|newtons?|joules?|watts?|volts?|amperes?|amps?|ohms?|pascals?|hertz|moles?|calories?|"
    "bytes?|bits?)|kelvins?|degrees?|radians?|minutes?|hours?|days?|weeks?|months?|years?|"
    "foot|feet|inch(?:es)?|yards?|miles?|knots?|pounds?|ounces?|tons?|tonnes?|gallons?|pints?|cups?|"
    "pixels?|percent|per cent|dollars?|cents?|euros?|yuan|yen|celsius|fahrenheit"
)
ONE = (
    rf"(?:(?i:(?:square|cubic|sq)\.?\s++)?+(?i:{NAMES})|"
    rf"{LENGTHS}|{MASSES}|{TIMES}|{VOLUMES}|{PHYSICS}|{RATES}|{BYTES}|{MONEY})"
    r"(?:\^?\{?-?[1-4]\}?|[²³])?"
)
UNIT = re.compile(rf"%|\\%|{ONE}(?:(?:\s*+/\s*+|\s++per\s++|[·*]){ONE}){{0,3}}")
"""A whole unit: symbols as they are written, names in any case, "m/s^2", "square feet per hour".

Single letters that as often stand for something else are none: k, K, M, B, T, d, e, i, t, x.
"""
