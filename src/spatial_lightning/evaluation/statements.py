"""How answers state a letter: alone, after a cue such as ``answer is``, called correct, corrected or left open."""

from __future__ import annotations

import re

LETTER = r"(?:(?:option|choice|letter|answer)\s)?\"?"
BRACKETED = re.compile(r"\(\s?([A-Za-z])\s?\)|(?<![\w(])([A-Z])\)")
LABELLED = re.compile(
    r"\b(?:option|choice|point|box|label(?:l?ed)?|marked|choose|select|pick|go\swith|it(?:\sis|'s))\s\"?"
    r"(?-i:([B-Z]|A(?!\s(?!is\b)[a-z])))\b",
    re.IGNORECASE,
)
LEADING = re.compile(rf"{LETTER}(?:\(\s?([A-Za-z])\s?\)|([A-Z])(?:\"|[).:,]|\n|$)|([a-z])[).]?$)")
STATED = re.compile(
    rf"\s?{LETTER}\(?([A-Za-z])(?:[)\].:,;\"']|\s?$|\s?\n|\s(?:is|because|since|as|-)\b)", re.IGNORECASE
)
ANSWER = re.compile(
    r"\b(?:(?:answer|choice|option|letter|\bthe\sbest(?:\sone|\smatch)?)(?:\s(?:is|would\sbe|should\sbe)\b\s?:?|\s?:|\s-\s)"
    r"|(?<![^\n])(?:final|selected|correct|chosen)\s?:)",
    re.IGNORECASE,
)
THOUGHT = re.compile(
    r"\b(?:I(?:'d|\swould)?\s(?:think|say|guess|believe)|(?:it|this)\s(?:must|should|would)\sbe)\b", re.IGNORECASE
)
THOUGHT_LETTER = re.compile(r"[\s,:]*(?:it(?:'s|\sis)\s)?\(?([A-Z])(?:[)\].:,;\"']|\s?$|\s?\n|\s(?:because|since)\b)")
DECLARED = re.compile(
    r"(?<![\w'])\(?([A-Z])\)?\s(?:(?:is|would\sbe|must\sbe|should\sbe)\s(?:(?:clearly|definitely|probably)\s)?(?:the\s)?"
    r"(?:(?:correct|right|best|final|most\slikely)\s(?:answer|choice|option|one)|answer|correct|(right)(?=[.,;!\n]|$)|best)\b"
    r"|it\sis(?=[.!\n]|$))"
)
NOT_DECLARED = re.compile(r"\b(?:neither|nor|not(?:\sthat)?|whether|if|or|and)\s(?:option\s|choice\s)?$", re.IGNORECASE)
# Before an answer that is nothing but a letter or an option.
OPENING = re.compile(
    r"(?:(?:the|my)\s)?(?:final\s)?(?:answer|choice|option|letter|caption|image|picture|view)\s|"
    r"I(?:'d|\swould)?\s(?:think|say|guess|believe)\s(?:it(?:'s|\sis)\s)?|"
    r"(?:it|that)(?:'s|\sis|\smust\sbe|\sshould\sbe|\swould\sbe)\s|(?:probably|likely|actually),?\s",
    re.IGNORECASE,
)
CORRECTION = re.compile(
    r"(?P<no>\?\s?no[,.]\s)|(?:[.?!;,\n-]\s?)(?:(?:oh|no|hmm),?\s)?(?:wait\b(?=\s?[,.:!-])|correction\b|scratch\sthat\b)[\s,.:!-]*"
    r"(?:no\b[,.]?\s)?|[.!]\s?actually,\s",
    re.IGNORECASE,
)
LONGEST_CORRECTION = 60
# Behind a letter: a second one that the answer leaves open.
ALTERNATIVE = re.compile(
    r"[)\]\"']*\s?(?:(?:,|/|&)\s?\(?[A-Z]\)?(?=\s?(?:[.,;:\n]|$|or\b|and\b))|"
    r"(?:,\s)?(?:or|and)\s(?:\([A-Z]\)|[A-Z](?=\s?(?:[.,;:\n]|$|or\b|and\b))))"
)
WORDS_FOLLOW = re.compile(r"\s?[).:]\s?(?:(?:the|an?)\s)?", re.IGNORECASE)
# A reply to a question that was repeated opens its sentence.
REPLY = re.compile(r"(?<=\?)\s(?=(?:yes|no)\b[,.!])", re.IGNORECASE)
CLAUSE_END = re.compile(r"\s?(?:[.,;!\n]|$)")
REASON = re.compile(r"([A-Z])\s(?:because\b|since\b|as\b|\(not\b)|([A-Z])\sis\b")
CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|so|overall|(?:in\s)?conclusion|based\son\s(?:this|these|the|my))\b", re.IGNORECASE
)
SENTENCE = re.compile(r"(?:[^.!?\n]|(?<=\d)\.(?=\d))+(?:[.!?\n]+|$)")
CONCLUDED = re.compile(
    rf"[\s,:]*(?i:{LETTER}|it\s(?:is|must\sbe)\s)\(?([A-Z])(?:[)\].:,;\"']|\s?$|\s?\n|\s(?:is|because|since|as|-)\b)"
)
