"""Everyday questions that anybody may answer, in any style: about nobody's topic."""

from steering.prompt_banks.bank import Bank, Prompt

_QUESTIONS = """
What makes a good neighbour?
How do you like to spend a rainy afternoon?
What should I pay attention to when I buy a bicycle?
Why do people keep diaries?
How can I fall asleep more easily?
What is the best way to learn to swim as an adult?
Should children have pocket money?
How do I keep a friendship alive over a long distance?
What would you cook for six guests at short notice?
Is it better to live in a town or in the countryside?
How can I make my mornings less hectic?
What do you say to somebody who has lost a pet?
Why do we find some music sad?
How do I choose a present for somebody I hardly know?
What should every household have in its first-aid box?
How can two people decide fairly who does which chores?
What is the charm of old photographs?
Should I repair my old shoes or buy new ones?
How do you start a conversation on a train?
What helps against stage fright?
Why does time seem to pass faster as we grow older?
How can I get used to drinking more water?
What is a good way to say no without being rude?
How would you explain to a child why the sky is blue?
What should I plant on a shady balcony?
Is it worth getting up to see the sun rise?
How do I find out what I am good at?
What makes a speech at a wedding a good one?
How can I save money without noticing it much?
Why do people like to watch the sea?
What do you do with leftover bread?
How should one prepare for a long walk in the mountains?
Is it impolite to arrive early?
What can one learn from losing a game?
How do I make a small room feel larger?
What is the difference between being alone and being lonely?
How can I remember the names of people I meet?
Should one finish every book that one has begun?
What makes a city pleasant to walk in?
How do I get a stain out of a white shirt?
What would you tell somebody on the first day of a new job?
Why are holidays sometimes more tiring than work?
How can a shy person make friends?
What is a fair way to share a cake among three?
How do you notice that it is time for a change?
What belongs in a letter to a friend you have not seen for years?
How can one be patient while waiting in a queue?
What do birds do when it storms?
"""

BANK = Bank(
    "neutral",
    tuple(
        Prompt(f"neutral-{number:02}", question)
        for number, question in enumerate(_QUESTIONS.strip().splitlines(), 1)
    ),
)
