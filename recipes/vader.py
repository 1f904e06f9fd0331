"""How positive a text is by VADER's lexicon (Hutto & Gilbert 2014), from -1 to 1."""

try:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
except ImportError:
    raise SystemExit("pip install vaderSentiment") from None

ANALYZER = SentimentIntensityAnalyzer()


def positive(completion):
    return ANALYZER.polarity_scores(completion)["compound"]
