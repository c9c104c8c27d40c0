"""Questions about the topics of Python's manual, as examples/embedding.yaml groups them."""

from steering.prompt_banks.bank import Bank, Prompt

_QUESTIONS_BY_GROUP = {
    "compound": (
        "How do I run a block of code only while a condition holds?",
        "What does the else clause of a loop do?",
        "How are several exceptions handled in one statement?",
        "How do I match a value against several patterns?",
    ),
    "types": (
        "What is the difference between a mutable and an immutable object?",
        "Which attributes does a user-defined function have?",
        "What happens when a module object is created?",
        "What are code objects and frame objects?",
    ),
    "string-methods": (
        "How do I split a line of text at commas?",
        "How do I check whether a word begins with a prefix?",
        "How can I strip spaces from both ends of a piece of text?",
        "How do I replace one word by another in a sentence?",
    ),
    "debugger": (
        "How do I stop a running program at a certain line?",
        "How can I look at variables after a crash?",
        "How do I step into a function that is being called?",
        "How do I list the breakpoints that are set?",
    ),
    "specialnames": (
        "How does an object decide what is printed for it?",
        "How can my class support the plus operator?",
        "How do I make an object callable?",
        "How does a class control access to its attributes?",
    ),
    "typesseq": (
        "How do I take every second item of a list?",
        "What can one do with a tuple?",
        "How do I find out where in a list a value is?",
        "How is a range different from a list?",
    ),
    "typesmapping": (
        "How do I get a value for a key that may be missing?",
        "In which order are the keys of a dictionary listed?",
        "How do I merge two dictionaries?",
        "Which objects may be used as keys?",
    ),
    "attribute-access": (
        "What is looked up first: the instance or the class?",
        "How does a descriptor work?",
        "What happens when an attribute is not found?",
        "How do slots save memory?",
    ),
    "formatstrings": (
        "How do I print a number with two decimal places?",
        "How do I align text to the right in a column?",
        "How can thousands be separated by commas in output?",
        "What can be written between the braces of a template?",
    ),
    "assignment": (
        "How do I give two names a value in one line?",
        "What happens when a list is unpacked into names?",
        "How does adding in place differ from adding?",
        "Can a name be declared with a type and without a value?",
    ),
    "comparisons": (
        "How do I test whether a value lies between two others?",
        "When are two lists equal?",
        "What is the difference between being equal and being the same object?",
        "How do I test whether something is a member of a set?",
    ),
    "customization": (
        "What happens when an instance is created?",
        "When is an object destroyed?",
        "How is the hash of an object defined?",
        "How do I define what less-than means for my class?",
    ),
}

BANK = Bank(
    "python-docs",
    tuple(
        Prompt(f"{group}-{number}", question, group)
        for group, questions in _QUESTIONS_BY_GROUP.items()
        for number, question in enumerate(questions, 1)
    ),
)
